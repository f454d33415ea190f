"""Knowledge bases: documents in, passages out."""
