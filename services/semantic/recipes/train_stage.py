"""Train the semantic stage: `train_stage.py --config services/semantic/recipes/musiclm_semantic.toml ...`.

The program is that of every stage: `stretto_shared.training.stages.trainer`.
"""

from stretto_shared.training.stages.trainer import main

if __name__ == "__main__":
    main()
