# SPDX-License-Identifier: MIT
"""What the disk itself can do, by fio with O_DIRECT: the figure to hold the others against."""
import json
import os
import shutil
import subprocess

PAGE_BYTES = 4096
JOBS = {
    "rand_4k_qd1": ["--rw=randread", "--bs=4k", "--iodepth=1"],
    # Threads that wait for their reads, as threads that miss pages do.
    **{f"rand_4k_{threads}_threads": ["--rw=randread", "--bs=4k", "--ioengine=psync", "--thread",
                                      f"--numjobs={threads}", "--group_reporting"]
       for threads in (2, 8, 32)},
    "seq_256k_qd4": ["--rw=read", "--bs=256k", "--iodepth=4"],
}


def parse_fio(text):
    """(operations a second, bytes a second) of the first job's reads."""
    # fio may print notes in front of the JSON.
    read = json.loads(text[text.index("{"):])["jobs"][0]["read"]
    return read["iops"], read["bw_bytes"]


def _run(path, size_bytes, seconds, extra):
    command = ["fio", "--name=raw", f"--filename={path}", f"--size={size_bytes}", "--direct=1",
               "--ioengine=libaio", f"--runtime={seconds}", "--time_based",
               "--output-format=json", *extra]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode:
        raise OSError(f"fio: {done.stderr.strip() or done.stdout.strip()}")
    return parse_fio(done.stdout)


class RawDisk:
    def __init__(self, directory, size_bytes, seconds):
        self.directory, self.size_bytes, self.seconds = directory, size_bytes, seconds

    def _run_jobs(self, names):
        path = os.path.join(self.directory, f"extmem-bench-fio.{os.getpid()}")
        try:
            return [_run(path, self.size_bytes, self.seconds, JOBS[name]) for name in names]
        finally:
            if os.path.exists(path):
                os.unlink(path)

    def rate(self, name):
        """Pages a second that one job reads."""
        return self._run_jobs([name])[0][1] / PAGE_BYTES

    def measure(self):
        """{"rand_4k_qd1": {"iops":, "bytes_per_s":}, ...}, or {"unavailable": reason}."""
        if not shutil.which("fio"):
            return {"unavailable": "fio is not installed"}
        try:
            return {name: {"iops": iops, "bytes_per_s": rate}
                    for name, (iops, rate) in zip(JOBS, self._run_jobs(JOBS))}
        except (OSError, ValueError, KeyError) as error:
            return {"unavailable": str(error)}
