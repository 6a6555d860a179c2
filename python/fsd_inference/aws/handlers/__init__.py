"""What Lambda calls: `coordinator.handle` for a run, `worker.handle` for each of its ranks."""
