"""The security checklist: checklist.py says where each line is kept and what shows that it is."""
