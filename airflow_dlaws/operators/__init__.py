"""The operators. Import each from its module: `from airflow_dlaws.operators.training import ...`."""
