"""What a board takes: packed models, flatbuffers, C arrays, applications, heads."""
