"""A component; see component.py."""
