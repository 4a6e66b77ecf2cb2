"""What the DAGs share: settings and the operator that submits a job."""
