//! MCP calls: classify, plan, name, filter.
