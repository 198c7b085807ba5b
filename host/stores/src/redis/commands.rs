//! The number of commands that clients sent to a Redis, counted by that Redis: for measurements.

use dovetail_core::blobs::StoreError;

use super::RedisWindow;

impl RedisWindow {
    /// The commands that clients have sent since the server started or its statistics were reset. The count includes
    /// this request and its connection.
    ///
    /// `INFO commandstats` counts the commands of scripts together with those of clients. So this method counts only
    /// commands that no script can call: script invocations, and commands on connections and the server. Apart from
    /// `forget_everything`, our clients send no other commands.
    ///
    /// # Errors
    /// `Unavailable` if the server does not answer.
    pub fn client_commands(&self) -> Result<u64, StoreError> {
        let mut connection = self.connect().map_err(|e| self.error("connect to", e))?;
        let info: String =
            redis::cmd("INFO").arg("commandstats").query(&mut connection).map_err(|e| self.error("ask", e))?;
        Ok(sent_by_clients(&info))
    }
}

/// Commands that only a client can send.
const CLIENTS: [&str; 17] = [
    "auth",
    "client",
    "config",
    "eval",
    "eval_ro",
    "evalsha",
    "evalsha_ro",
    "fcall",
    "fcall_ro",
    "function",
    "hello",
    "info",
    "psubscribe",
    "script",
    "select",
    "subscribe",
    "unsubscribe",
];

fn sent_by_clients(info: &str) -> u64 {
    let calls = |line: &str| {
        let (name, facts) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        // Subcommands have lines of their own: `cmdstat_client|setinfo`.
        let kind = name.split('|').next()?;
        let calls = facts.split(',').find_map(|fact| fact.strip_prefix("calls="))?;
        CLIENTS.contains(&kind).then(|| calls.parse::<u64>().ok())?
    };
    info.lines().map(str::trim).filter_map(calls).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_scripts_are_not_counted() {
        let info = "# Commandstats\r\n\
            cmdstat_evalsha:calls=10,usec=1,usec_per_call=1.00,rejected_calls=0,failed_calls=0\r\n\
            cmdstat_hget:calls=500,usec=1\r\ncmdstat_client|setinfo:calls=2,usec=1\r\n\
            cmdstat_info:calls=1,usec=9\r\ncmdstat_publish:calls=7\r\n";
        assert_eq!(sent_by_clients(info), 13);
        assert_eq!(sent_by_clients(""), 0);
    }
}
