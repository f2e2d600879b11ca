# The local AWS with what its jobs and endpoints run on (torch for CPUs): docker compose build.

FROM python:3.11-slim-bookworm

WORKDIR /opt/dlaws
COPY constraints.txt ./
# pip takes 2.13.0+cpu before 2.13.0; the rest of what torch needs is on PyPI alone.
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md LICENSE ./
COPY airflow_dlaws airflow_dlaws
COPY dags dags
COPY training_scripts training_scripts
RUN pip install --no-cache-dir --constraint constraints.txt ".[local]" \
 && useradd --create-home dlaws && install --directory --owner=dlaws /var/lib/dlaws

USER dlaws
ENV PYTHONUNBUFFERED=1
