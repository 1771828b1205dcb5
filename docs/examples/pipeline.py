"""Classify recordings with scikit-learn."""

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from edgel3_tflm import EdgeL3Transformer

clips = [f"recordings/{name}.flac" for name in ("birds", "rooster", "rain_heavy", "rain_light")]
pipeline = make_pipeline(EdgeL3Transformer("edgel3"), LogisticRegression())
print(pipeline.fit(clips, ["bird", "bird", "rain", "rain"]).predict(clips[:1]))
