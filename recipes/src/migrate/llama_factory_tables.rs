//! LLaMA-Factory's keys that nothing is made of, with a word on each.
//!
//! In:    nothing.
//! Out:   a table.
//! Never: a key that is carried.

use super::What::{CarriedDifferently, NoCounterpart, NotNeeded};
use super::common_tables::listed;
use super::ledger::Listed;

/// Keys of the file.
pub(super) const FILE: [Listed; 15] = [
    listed(
        &[
            "use_dora",
            "pissa_*",
            "oft_*",
            "module_dropout",
            "additional_target",
            "use_llama_pro",
            "freeze_*",
            "mixture_of_depths",
            "train_from_scratch",
        ],
        NoCounterpart,
        "another kind of adapter or choice of trained weights; here adapters on linear layers of blocks, from zero, or all weights",
    ),
    listed(
        &["create_new_adapter"],
        NoCounterpart,
        "it put a new adapter beside the one it started from; here that one is continued",
    ),
    listed(
        &["quantization_type", "double_quantization", "quantization_method", "quantization_device_map", "fp8", "fp8_*"],
        CarriedDifferently,
        "the base in 4 bits is NormalFloat with scales quantised again here, in no other format",
    ),
    listed(
        &["mix_strategy", "interleave_probs"],
        NoCounterpart,
        "it drew rows from the data sets in other shares; here `weight` of each source",
    ),
    listed(
        &[
            "eval_on_each_dataset",
            "compute_accuracy",
            "predict_with_generate",
            "do_predict",
            "eval_num_beams",
            "eval_dataset_size",
            "max_new_tokens",
            "num_beams",
            "do_sample",
            "temperature",
            "top_p",
            "top_k",
            "repetition_penalty",
            "length_penalty",
            "default_system",
            "skip_special_tokens",
        ],
        NoCounterpart,
        "an evaluation or an answer by the tool's own means; eval.exact_match answers greedily and counts",
    ),
    listed(&["tool_format"], CarriedDifferently, "tools are rendered by the chat template"),
    listed(
        &["enable_thinking", "mask_thinking"],
        NoCounterpart,
        "it changed how thinking is rendered or trained; here the chat template decides",
    ),
    listed(
        &[
            "resize_vocab",
            "split_special_tokens",
            "add_tokens",
            "add_special_tokens",
            "new_special_tokens_config",
            "init_special_tokens",
        ],
        NoCounterpart,
        "it added tokens; here the tokenizer is used as it comes",
    ),
    listed(
        &[
            "shift_attn",
            "moe_aux_loss_coef",
            "use_dft_loss",
            "use_asft_loss",
            "asft_alpha",
            "use_eaft_loss",
            "eaft_alpha",
        ],
        NoCounterpart,
        "another attention or another loss",
    ),
    listed(
        &["disable_shuffling"],
        NoCounterpart,
        "rows stood in the order of the files; here they are shuffled by train.seed",
    ),
    listed(
        &[
            "upcast_layernorm",
            "upcast_lmhead_output",
            "include_effective_tokens_per_second",
            "print_param_status",
            "infer_*",
            "offload_folder",
            "use_kv_cache",
            "low_cpu_mem_usage",
            "adapter_folder",
            "ms_hub_token",
            "om_hub_token",
            "vllm_*",
            "sglang_*",
            "use_mca",
            "use_megatron",
            "use_ray",
            "placement_strategy",
            "resources_per_worker",
            "num_workers",
        ],
        NotNeeded,
        "a matter of the other tool's runtime",
    ),
    listed(
        &["media_dir", "image_*", "video_*", "audio_*", "crop_to_patches", "use_audio_in_video"],
        NoCounterpart,
        "images, video and sound are not trained on here",
    ),
    listed(
        &["pref_*", "dpo_*", "kto_*", "simpo_gamma", "ppo_*", "ref_model*", "reward_model*", "ld_alpha"],
        NoCounterpart,
        "a number of preference training",
    ),
    listed(
        &["eval_delay", "torch_empty_cache_steps", "optim_target_modules"],
        NotNeeded,
        "a matter of the other tool's runtime",
    ),
    listed(&["use_kt", "kt_*"], NotNeeded, "where weights live is planned; [offload] overrides it"),
];

/// Keys that `llama_factory` makes something of, beside the plain ones.
#[cfg(test)]
pub(super) const HANDLED: [&str; 33] = [
    "model_name_or_path",
    "model_revision",
    "adapter_name_or_path",
    "stage",
    "finetuning_type",
    "quantization_bit",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target",
    "use_rslora",
    "dataset",
    "eval_dataset",
    "dataset_dir",
    "template",
    "cutoff_len",
    "max_samples",
    "packing",
    "neat_packing",
    "train_on_prompt",
    "mask_history",
    "val_size",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "lr_scheduler_type",
    "optim",
    "bf16",
    "fp16",
    "pure_bf16",
    "save_steps",
    "eval_steps",
    "save_total_limit",
];
