"""`measure.py COMMAND...`: run a command and print its wall time, CPU time and peak memory, as JSON.

A new process starts with the peak memory of its parent, so this script is kept small.
"""

import json
import os
import subprocess
import sys
import time

began = time.monotonic()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
wall = time.monotonic() - began
peak = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
print(json.dumps({"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak_mb": peak}))
sys.exit(os.waitstatus_to_exitcode(status))
