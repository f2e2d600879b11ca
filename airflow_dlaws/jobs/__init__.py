"""The vocabulary of jobs: specification, phase, status, identity, container contract, metric line. Stdlib only."""
