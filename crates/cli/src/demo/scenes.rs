//! The calls that are played, and what must come of each.

use super::providers::BUSY_MODEL;

/// One call of one agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene {
    /// Service account; `None` has no certificate.
    pub(super) who: Option<&'static str>,
    pub(super) what: &'static str,
    pub(super) ask: Ask,
    pub(super) expect: Expect,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    /// An OpenAI chat completion.
    Chat { model: &'static str, stream: bool },
    /// An Anthropic message.
    Message {
        model: &'static str,
        stream: bool,
        max_tokens: u32,
    },
    /// The tools of an MCP server, of which exactly these must be shown.
    ListTools {
        route: &'static str,
        shown: &'static [&'static str],
    },
    /// A tool of an MCP server.
    CallTool {
        route: &'static str,
        tool: &'static str,
    },
    /// A page of a host.
    Get {
        host: &'static str,
        path: &'static str,
    },
}

/// What the gateway's audit and the caller's answer must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expect {
    /// `None` when no policy was asked.
    pub(super) decision: Option<&'static str>,
    /// The rule, or the default that decided; empty when none did.
    pub(super) by: &'static str,
    pub(super) status: u16,
    pub(super) attempts: u64,
    /// Whether tokens were counted, on the word of the provider.
    pub(super) tokens: bool,
    /// A dry-run rule that would deny it; empty when none.
    pub(super) would_deny: &'static str,
}

const fn allowed(by: &'static str) -> Expect {
    Expect {
        decision: Some("allow"),
        by,
        status: 200,
        attempts: 1,
        tokens: false,
        would_deny: "",
    }
}

const fn metered(by: &'static str) -> Expect {
    Expect {
        tokens: true,
        ..allowed(by)
    }
}

const fn denied(by: &'static str, status: u16) -> Expect {
    Expect {
        decision: Some("deny"),
        status,
        attempts: 0,
        ..allowed(by)
    }
}

const NO_RULE: &str = "no rule allows this";
const ORCHESTRATOR: Option<&str> = Some("orchestrator-agent");
const REVIEWER: Option<&str> = Some("pr-agent");
const SUMMARY: Option<&str> = Some("summary-agent");
const GITHUB: Option<&str> = Some("github-mcp");
const SCANNER: Option<&str> = Some("mcp-code-scanning");

/// Everything, in the order of a code review.
pub(super) const SCENES: &[Scene] = &[
    Scene {
        who: ORCHESTRATOR,
        what: "list tools of github",
        ask: Ask::ListTools {
            route: "github",
            shown: &["get_issue", "list_issues", "post_comment"],
        },
        expect: allowed("post-review"),
    },
    Scene {
        who: ORCHESTRATOR,
        what: "github get_issue",
        ask: Ask::CallTool {
            route: "github",
            tool: "get_issue",
        },
        expect: allowed("post-review"),
    },
    Scene {
        who: ORCHESTRATOR,
        what: "code-scanning scan_repo",
        ask: Ask::CallTool {
            route: "code-scanning",
            tool: "scan_repo",
        },
        expect: allowed("scan"),
    },
    Scene {
        who: SCANNER,
        what: "GET semgrep.dev/api",
        ask: Ask::Get {
            host: "semgrep.dev",
            path: "/api/v1/rules",
        },
        expect: allowed("semgrep-cloud"),
    },
    Scene {
        who: REVIEWER,
        what: "chat gpt-4o",
        ask: Ask::Chat {
            model: "gpt-4o",
            stream: false,
        },
        expect: metered("code-review"),
    },
    Scene {
        who: REVIEWER,
        what: "chat gpt-4o-mini, streamed",
        ask: Ask::Chat {
            model: "gpt-4o-mini",
            stream: true,
        },
        expect: metered("code-review"),
    },
    Scene {
        who: REVIEWER,
        what: "chat gpt-4.1, busy at first",
        ask: Ask::Chat {
            model: BUSY_MODEL,
            stream: false,
        },
        expect: Expect {
            attempts: 2,
            ..metered("code-review")
        },
    },
    Scene {
        who: REVIEWER,
        what: "chat o3 (not its model)",
        ask: Ask::Chat {
            model: "o3",
            stream: false,
        },
        expect: denied(NO_RULE, 403),
    },
    Scene {
        who: REVIEWER,
        what: "message claude (wrong provider)",
        ask: Ask::Message {
            model: "claude-sonnet-4",
            stream: false,
            max_tokens: 256,
        },
        expect: denied(NO_RULE, 403),
    },
    Scene {
        who: SUMMARY,
        what: "message claude-sonnet-4",
        ask: Ask::Message {
            model: "claude-sonnet-4",
            stream: false,
            max_tokens: 256,
        },
        expect: metered("summaries"),
    },
    Scene {
        who: SUMMARY,
        what: "message, streamed, 4096 tokens",
        ask: Ask::Message {
            model: "claude-sonnet-4",
            stream: true,
            max_tokens: 4096,
        },
        expect: Expect {
            would_deny: "at-most-1000-tokens",
            ..metered("summaries")
        },
    },
    Scene {
        who: SUMMARY,
        what: "chat gpt-4o (wrong provider)",
        ask: Ask::Chat {
            model: "gpt-4o",
            stream: false,
        },
        expect: denied(NO_RULE, 403),
    },
    Scene {
        who: ORCHESTRATOR,
        what: "github post_comment",
        ask: Ask::CallTool {
            route: "github",
            tool: "post_comment",
        },
        expect: allowed("post-review"),
    },
    Scene {
        who: ORCHESTRATOR,
        what: "github merge_pr (hidden)",
        ask: Ask::CallTool {
            route: "github",
            tool: "merge_pr",
        },
        expect: denied(NO_RULE, 200),
    },
    Scene {
        who: ORCHESTRATOR,
        what: "github delete_repo (hidden)",
        ask: Ask::CallTool {
            route: "github",
            tool: "delete_repo",
        },
        expect: denied("nothing-is-deleted", 200),
    },
    Scene {
        who: REVIEWER,
        what: "github post_comment",
        ask: Ask::CallTool {
            route: "github",
            tool: "post_comment",
        },
        expect: denied(NO_RULE, 403),
    },
    Scene {
        who: GITHUB,
        what: "GET api.github.com/repos",
        ask: Ask::Get {
            host: "api.github.com",
            path: "/repos/acme/shop/issues",
        },
        expect: allowed("github-data"),
    },
    Scene {
        who: GITHUB,
        what: "GET semgrep.dev (not its API)",
        ask: Ask::Get {
            host: "semgrep.dev",
            path: "/api/v1/rules",
        },
        expect: denied(NO_RULE, 403),
    },
    Scene {
        who: REVIEWER,
        what: "GET pastebin.com (unknown)",
        ask: Ask::Get {
            host: "pastebin.com",
            path: "/upload",
        },
        expect: Expect {
            decision: None,
            ..denied("", 404)
        },
    },
    Scene {
        who: None,
        what: "chat gpt-4o without identity",
        ask: Ask::Chat {
            model: "gpt-4o",
            stream: false,
        },
        expect: denied("no workload identity", 401),
    },
];
