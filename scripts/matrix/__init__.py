"""`make matrix`: the built wheel on every Airflow that the README names, from installation to a green loop."""
