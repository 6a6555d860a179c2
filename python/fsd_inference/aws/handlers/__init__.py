"""The handlers of the Lambda functions: `coordinator.handle` for each run, `worker.handle` for each of its ranks."""
