"""Fixed protocols: ``python -m benchmarks.NAME`` prints a table and writes results/NAME.json."""

import os

# torch and faiss each bring an OpenMP runtime. Threads that spin while idle take the cores from the
# other one, so both wait passively here. OMP_WAIT_POLICY=ACTIVE measures the libraries' own default.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
