"""AWS on one machine: moto for what it serves well, and a SageMaker that really runs things.

`server` is the process, `dispatch` finds the operation, `service_model` checks the request, the resource classes
(`training.TrainingJobs`, ...) do the work, `process.LocalAws` starts and stops it all from Python. Needs the extra
`local`. Nothing but the command line and the tests imports this package.
"""
