"""How results are shown: the HTML page and the look of figures, one for every report."""
