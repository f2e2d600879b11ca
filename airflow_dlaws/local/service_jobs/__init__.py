"""AWS Batch's service jobs: queues in front of SageMaker training, each job a real training job here."""
