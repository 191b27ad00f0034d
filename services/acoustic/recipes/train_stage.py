"""Train the coarse or the fine stage: `train_stage.py --config services/acoustic/recipes/musiclm_fine.toml ...`.

The program is that of every stage: `stretto_shared.training.stages.trainer`.
"""

from stretto_shared.training.stages.trainer import main

if __name__ == "__main__":
    main()
