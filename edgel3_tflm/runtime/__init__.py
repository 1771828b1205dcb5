"""Models and the runtimes that run them: deployments, flatbuffers, packed models, interpreters."""
