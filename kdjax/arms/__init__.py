"""The arms of a recipe and what each is charged before its first step, from settings alone.

An arm's other places: its settings are in `kdjax.config.arms`, what a preset stands for in
`kdjax.objectives.presets`, an arm ready for two models in `kdjax.training.arm`, its compiled phases
and its runs in `kdjax.study.runs` (`compiled_arm`, `arm_run`), as it ran in
`kdjax.results.arm_results`. A teacher's: its settings in `kdjax.config.teacher`, where its features
come from in `kdjax.training.teacher`, its stored outputs in `kdjax.training.teacher_cache`, the
teachers that a study trains or reads in `kdjax.study.teachers`, what results say of them in
`kdjax.results.teacher_facts`.
"""
