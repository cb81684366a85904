import os
import threading

import cv2
import pytest

from benchmarks.hardware import cores


@pytest.mark.skipif(not cores.CAN_RESTRICT, reason=cores.WHY_NOT)
def test_one_core_is_for_every_thread_and_ends():
    allowed = os.sched_getaffinity(0)
    opencv_threads = cv2.getNumThreads()
    seen, go_on, end = {}, threading.Event(), threading.Event()

    def old():
        go_on.wait()
        seen["old"] = os.sched_getaffinity(0)
        end.wait()
        seen["old, after"] = os.sched_getaffinity(0)

    def new():
        seen["new"] = os.sched_getaffinity(0)
        end.wait()
        seen["new, after"] = os.sched_getaffinity(0)

    threads = [threading.Thread(target=old)]
    threads[0].start()
    with cores.one() as count:
        assert count == cores.count() == 1
        assert cv2.getNumThreads() == 1
        threads.append(threading.Thread(target=new))
        threads[1].start()
        go_on.set()
        while len(seen) < 2:
            end.wait(0.001)
    end.set()
    for thread in threads:
        thread.join()
    assert len(seen["old"]) == len(seen["new"]) == 1
    assert seen["old, after"] == seen["new, after"] == os.sched_getaffinity(0) == allowed
    assert cv2.getNumThreads() == opencv_threads


def test_without_affinity_nothing_is_restricted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "CAN_RESTRICT", False)
    with cores.one() as count:
        assert count is None
    assert cores.count() == os.cpu_count()
