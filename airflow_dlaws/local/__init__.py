"""AWS on one machine: moto's services, and a SageMaker whose jobs are processes and whose endpoints are HTTP servers."""
