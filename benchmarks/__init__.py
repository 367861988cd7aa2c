"""Speed, memory and accuracy, measured: each module is a script that prints and writes JSON."""
