"""The commands about boards: estimates, application projects, classifier heads and devices."""
