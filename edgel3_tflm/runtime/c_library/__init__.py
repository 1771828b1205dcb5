"""The C library edgel3, built for this machine: its engine and its log-mel front end."""
