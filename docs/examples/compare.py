"""Measure what a board's embeddings lose, beside the float network."""

from edgel3_tflm import compare, estimate

report = compare("edgel3", "recordings", runtime="node", output="drift")
print(report.overall.cosine_mean, report.overall.sqnr_db, "dB")
print(estimate("edgel3", "portenta_h7_m7", build=False).boards[0].fits)
