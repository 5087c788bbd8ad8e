"""A task that Ray's memory monitor ends is tried a few times, then one line says what to lower."""

import os
import re
import subprocess
import sys
import textwrap

from pipelines.runtime.remote import out_of_memory
from tests.pipelines.support import PATIENCE, ROOT

CODE = """
    import os, tempfile, time
    os.environ |= {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    os.environ["RAY_task_oom_retry_delay_base_ms"] = "100"
    from pipelines.config.stage1 import Distil
    from pipelines.runtime.remote import on_worker
    from wave.errors import WaveError
    import ray

    def judge(device):
        held = bytes(300 << 20)
        time.sleep(600)

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=tempfile.mkdtemp(prefix="oom-"))
    try:
        on_worker(Distil.model_validate({"recipe": {"steps": 4}}), judge)
    except WaveError as error:
        print("said:", error)
    ray.shutdown()
"""


def test_a_task_that_memory_is_too_small_for_ends_in_one_line() -> None:
    """The monitor is told that one hundredth of the memory is all there is."""
    script = [sys.executable, "-c", textwrap.dedent(CODE)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp"}
    done = subprocess.run(
        script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("said: ")), done.stderr)
    assert re.fullmatch(r"said: judge: Ray ended it 3 times because memory was full, .*; lower batch_size .*", line), (
        line
    )


def test_tables_without_numbers_give_a_line_too() -> None:
    assert "\n" not in out_of_memory("a\n" * 5000)
    assert len(out_of_memory("a\n" * 5000)) < 250
