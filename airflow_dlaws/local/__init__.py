"""AWS on one machine: moto, and a SageMaker whose jobs are processes and whose endpoints are HTTP servers."""
