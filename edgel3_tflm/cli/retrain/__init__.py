"""The commands that prune and retrain, and the study of the published networks."""
