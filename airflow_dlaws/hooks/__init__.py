"""Connections: how the Airflow side gets its AWS clients."""
