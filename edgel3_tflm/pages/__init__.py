"""Reports as one HTML file: charts, tables and the page around them. Needs the extra ``report``."""
