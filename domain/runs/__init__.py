"""The life of runs: begun, carried out, watched over, ended (life.py is where to start)."""
