"""The commands that measure: drift, reports, probes and the published evaluation."""
