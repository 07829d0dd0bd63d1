"""What dropping islands costs, on phantoms."""

import json

import pytest


def test_both_ways_are_timed_and_a_model_that_drops_nothing_needs_a_margin(benchmark_called, trained, phantoms, capsys):
    islands = benchmark_called("islands")
    islands.main([str(trained), str(phantoms), "--margin", "0.02", "--repeat", "2", "--threads", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["scans"] == 3 and result["engine"].startswith("torch on cpu")
    assert result["ratio"] == pytest.approx(result["dropping_seconds"] / result["arg_max_seconds"], rel=0.1)
    assert result["islands"] >= 0 and result["dropped_ml"] >= 0
    with pytest.raises(SystemExit):
        islands.main([str(trained), str(phantoms)])
    assert "drops no islands; name a --margin" in capsys.readouterr().err
