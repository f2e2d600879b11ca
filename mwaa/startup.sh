#!/bin/sh
# Startup script for Amazon MWAA: runs on every component, and what it exports reaches every task and DAG file. Set these.
export DLAWS_BUCKET=my-bucket
export DLAWS_ROLE_ARN=arn:aws:iam::111122223333:role/dlaws-job
export DLAWS_IMAGE=111122223333.dkr.ecr.eu-west-1.amazonaws.com/dlaws-torch:2.13
export DLAWS_ENDPOINT=flight-delays
