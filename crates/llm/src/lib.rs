//! LLM calls: parse, plan, meter.
