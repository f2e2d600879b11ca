# Airflow with this package: docker compose build. The constraints are those that the image itself was built with.

ARG AIRFLOW_BASE=apache/airflow:3.3.2-python3.12
FROM ${AIRFLOW_BASE}

COPY --chown=airflow:0 pyproject.toml README.md LICENSE /tmp/airflow-dlaws/
COPY --chown=airflow:0 airflow_dlaws /tmp/airflow-dlaws/airflow_dlaws
COPY --chown=airflow:0 dags /tmp/airflow-dlaws/dags
COPY --chown=airflow:0 training_scripts /tmp/airflow-dlaws/training_scripts
RUN pip install --no-cache-dir --constraint "${HOME}/constraints.txt" \
      "apache-airflow==${AIRFLOW_VERSION}" "/tmp/airflow-dlaws[validation,sweeps]" \
 && rm -rf /tmp/airflow-dlaws/build \
 && umask 0002 && mkdir -p "${AIRFLOW_HOME}/auth"
