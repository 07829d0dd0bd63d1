"""The scores of `evaluate` beside those of other tools, each asked in a process and an environment of its own.

    python -m judges          makes the environments in .venv-judges/
    make judges               asks whoever is installed

`masks` makes the label maps, `panel` knows the tools, `ask` asks one of them, and `scorers` holds what runs inside an
environment: nothing of brainsegnet, and no code of the tools. `agreement` compares the answers with ours.
"""
