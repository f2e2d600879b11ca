"""airflow-dlaws: train, validate, evaluate, roll out and watch deep-learning models on AWS from Apache Airflow.

Nothing is imported here, so that parsing a DAG costs only what the DAG uses.
"""

__version__ = "0.1.0"
