//! What is measured: the kinds of traffic, their load, and how much they may cost.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Events of one streamed answer, `[DONE]` included.
pub const EVENTS: usize = 50;
/// Between two events of a paced stream.
pub const PACE: Duration = Duration::from_millis(10);

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum Case {
    /// A chat call of 1 KiB with a plain answer of 1 KiB.
    #[value(name = "chat-1k")]
    Chat1k,
    /// A chat call of 64 KiB with a plain answer of 1 KiB.
    #[value(name = "chat-64k")]
    Chat64k,
    /// A chat call with a streamed answer of 50 events, one every 10 ms.
    Sse,
    /// The same, as fast as it can be read.
    SseBurst,
    /// MCP `tools/call` in a session.
    ToolsCall,
    /// MCP `tools/list` of 200 tools, of which the caller may see 90.
    ToolsList,
}

/// What costs are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// By answers.
    Request,
    /// By events of a stream.
    Event,
}

impl Case {
    /// All of them, in the order they are run.
    pub const ALL: [Self; 6] = [
        Self::Chat1k,
        Self::Chat64k,
        Self::Sse,
        Self::SseBurst,
        Self::ToolsCall,
        Self::ToolsList,
    ];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat1k => "chat-1k",
            Self::Chat64k => "chat-64k",
            Self::Sse => "sse",
            Self::SseBurst => "sse-burst",
            Self::ToolsCall => "tools-call",
            Self::ToolsList => "tools-list",
        }
    }

    /// What its cost is counted by.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Sse | Self::SseBurst => Unit::Event,
            _ => Unit::Request,
        }
    }

    /// How many times bare Pingora's CPU time the gateway may take; `None` where the two do not do
    /// the same work.
    #[must_use]
    pub fn bound(self) -> Option<f64> {
        match self {
            Self::Chat1k | Self::Chat64k | Self::ToolsCall => Some(1.2),
            Self::Sse => Some(1.0),
            Self::SseBurst | Self::ToolsList => None,
        }
    }

    /// Connections of the saturating load.
    #[must_use]
    pub fn connections(self) -> usize {
        match self {
            // Paced streams leave the proxy idle; more of them make the figure steadier.
            Self::Sse => 128,
            _ => 32,
        }
    }

    /// Requests per second of the load that latency is measured at: far from saturation.
    #[must_use]
    pub fn rate(self) -> f64 {
        match self {
            Self::Chat1k | Self::ToolsCall => 2000.0,
            Self::Chat64k => 1000.0,
            Self::Sse => 50.0,
            Self::SseBurst | Self::ToolsList => 200.0,
        }
    }
}

impl Unit {
    /// As a column says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Event => "event",
        }
    }
}
