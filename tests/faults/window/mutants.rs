//! The script without one of its rules: each such script must fail a scenario. If a rule's words no longer stand in the
//! script, the test fails, too, so that the author of the change updates the rule here.

use super::{SCRIPT, Scenario, Stage, epochs, jobs, runs};

/// A rule: its name, its words in the script, the words in their place without the rule, and the scenario that fails
/// then.
struct Mutant(&'static str, &'static str, &'static str, &'static str);

const MUTANTS: &[Mutant] = &[
    Mutant(
        "a call is remembered",
        "if ln >= req then",
        "if ln > req then",
        "a_reply_that_is_asked_for_again_is_the_same",
    ),
    Mutant(
        "an older number does nothing",
        "if ln >= req then",
        "if ln == req then",
        "a_late_copy_of_an_earlier_call_claims_nothing",
    ),
    Mutant(
        "a new epoch is another",
        "ep = T[1]..string.format('%06d', T[2])..string.sub(rid, 1, 6)",
        "ep = 'same'",
        "what_was_read_before_a_loss_is_not_written_after_it",
    ),
    Mutant(
        "another server, another epoch",
        " or m.rid ~= rid or behind",
        " or behind",
        "jobs_of_a_server_that_was_restarted_are_verified",
    ),
    Mutant("a later tick was seen", "(seen_tick > tick or rewound)", "rewound", "a_rewind_is_seen_by_the_tick"),
    Mutant(
        "a call is missing",
        "(seen_tick > tick or rewound)",
        "seen_tick > tick",
        "a_rewind_is_seen_by_the_number_of_a_call",
    ),
    Mutant("verify: rebuilt", "bv == '1' or bep ~= ep", "bep ~= ep", "what_a_rebuild_enqueues_is_verified"),
    Mutant(
        "verify: another epoch",
        "bv == '1' or bep ~= ep",
        "bv == '1'",
        "jobs_of_a_server_that_was_restarted_are_verified",
    ),
    Mutant("verify: lapsed", " or lapsed ~= '0'", "", "a_lapsed_lease_is_counted_and_verified"),
    Mutant(
        "verify: cancelled",
        " or v[1] ~= 'o'",
        "",
        "a_cancelled_run_drops_children_and_keeps_its_jobs_to_be_verified",
    ),
    Mutant(
        "verify: succeeded before",
        " or v[3] or v[4]",
        " or v[4]",
        "a_recorded_step_that_is_queued_all_the_same_is_verified",
    ),
    Mutant(
        "verify: failed before",
        " or v[3] or v[4]",
        " or v[3]",
        "a_recorded_step_that_is_queued_all_the_same_is_verified",
    ),
    Mutant("verify: a need is missing", " else verify = true end", " end", "a_need_whose_value_is_missing_is_verified"),
    Mutant("children of another epoch", "(cep == ep and (", "(true and (", "children_of_a_lost_timeline_are_verified"),
    Mutant(
        "children of a forgotten caller",
        "(ln >= 0 or req == 1)",
        "true",
        "children_of_a_caller_that_was_forgotten_are_verified",
    ),
    Mutant(
        "all needs are there",
        " and ready(h, ARGV[c + 3], good == '1' and step) then",
        " then",
        "a_join_waits_for_all_that_it_needs",
    ),
    Mutant(
        "all needs are there after a rebuild",
        " and ready(h, ARGV[j + 3])) then",
        ") then",
        "a_rebuild_waits_for_what_its_jobs_need",
    ),
    Mutant("a done child is dropped", "if not done(h, ARGV[c]) and ", "if ", "a_child_that_is_done_is_not_enqueued"),
    Mutant("a done job is dropped", "(not done(h, ARGV[j]) and ", "(", "a_child_that_has_failed_is_not_enqueued"),
    Mutant(
        "a failed step stands",
        "else call('HSETNX', h, '!'..ARGV[d], '1') end",
        "end",
        "a_child_that_has_failed_is_not_enqueued",
    ),
    Mutant(
        "queued once",
        "if call('HSETNX', BODY, id, body(ep, verify, attempt, lane, needs)) == 1 then",
        "if call('HSET', BODY, id, body(ep, verify, attempt, lane, needs)) then",
        "a_child_that_is_queued_is_not_enqueued_again",
    ),
    Mutant(
        "the last one is not acknowledged",
        "if others(rg, step) == 0 then\n",
        "if others(rg, step) == 0 then ack(rg..'/'..step)\n",
        "the_last_one_keeps_the_outbox",
    ),
    Mutant(
        "complete means that all succeeded",
        "v[1] == v[2] and 'complete' or 'last'",
        "'complete'",
        "the_last_one_is_told_where_a_step_has_failed",
    ),
    Mutant(
        "the last one is told",
        "if others(rg, step) == 0 then\n",
        "if false then\n",
        "the_last_one_keeps_the_outbox",
    ),
    Mutant(
        "queued jobs are counted",
        "call('SADD', p..'j:'..rg, step); push(to, id, lane)",
        "push(id, lane)",
        "no_one_is_the_last_while_a_job_is_left",
    ),
    Mutant(
        "lost: nothing is acknowledged",
        "elseif not s then st[#st + 1] = 'lost'",
        "elseif not s then ack(rg..'/'..step); st[#st + 1] = 'lost'",
        "a_run_that_was_lost_alone_keeps_its_outbox",
    ),
    Mutant(
        "lost: nothing is written",
        "elseif not s then st[#st + 1] = 'lost'",
        "elseif not s then succeeded(h, step, val); st[#st + 1] = 'lost'",
        "a_lost_window_gets_no_field_of_a_run",
    ),
    Mutant(
        "lost is told",
        "elseif not s then st[#st + 1] = 'lost'",
        "elseif not s then st[#st + 1] = 'ok'",
        "a_lost_window_is_told_and_a_rebuild_heals_it",
    ),
    Mutant(
        "cancelled: no children",
        "elseif s == 'c' then st[#st + 1] = 'cancelled'\n    else\n      if good",
        "else\n      if good",
        "a_cancelled_run_drops_children_and_keeps_its_jobs_to_be_verified",
    ),
    Mutant(
        "cancelled: nothing is acknowledged",
        "elseif s == 'c' then st[#st + 1] = 'cancelled'\n    else\n      if good",
        "elseif s == 'c' then ack(rg..'/'..step); st[#st + 1] = 'cancelled'\n    else\n      if good",
        "a_cancelled_run_drops_children_and_keeps_its_jobs_to_be_verified",
    ),
    Mutant(
        "a tombstone drops children",
        "if not s and tombed(rg) then ack(rg..'/'..step); st[#st + 1] = 'closed'\n    elseif",
        "if",
        "a_closed_run_drops_children",
    ),
    Mutant(
        "a tombstone drops an opening",
        "if t0 <= over then st[#st + 1] = s and 'stale' or 'closed'\n    elseif",
        "if",
        "a_closed_run_drops_a_late_opening",
    ),
    Mutant(
        "a tombstone drops no later opening",
        "if t0 <= over then",
        "if over >= 0 then",
        "a_run_that_was_removed_opens_when_it_is_submitted_anew",
    ),
    Mutant(
        "a tombstone drops a late rebuild",
        "s and 'stale' or 'closed'\n    elseif s == 'c'",
        "s and 'ok' or 'closed'\n    elseif s == 'c'",
        "a_run_that_was_removed_opens_when_it_is_submitted_anew",
    ),
    Mutant(
        "a tombstone drops jobs",
        "if not v[1] and tombed(rg) then return nil end",
        "",
        "a_job_of_a_closed_run_is_not_handed_out",
    ),
    Mutant(
        "a dropped tombstone raises the horizon",
        "if #old > 0 then call('HSET', META, 'hor'",
        "if false then call('HSET', META, 'hor'",
        "a_dropped_tombstone_raises_the_horizon",
    ),
    Mutant("a stamp is not older than the horizon", " or t0 < m.hor", "", "a_dropped_tombstone_raises_the_horizon"),
    Mutant(
        "a stamp is of this epoch",
        "elseif oep ~= ep or t0",
        "elseif t0",
        "a_first_submission_that_comes_after_a_loss_is_refused",
    ),
    Mutant(
        "closing takes the jobs",
        "do acked[#acked + 1] = rg..'/'..step end\n  call('DEL'",
        "do break end\n  call('DEL'",
        "a_closed_run_leaves_nothing",
    ),
    Mutant("closing takes the run", "call('DEL', p..'h:'..rg, p..'j:'..rg)", "", "a_closed_run_leaves_nothing"),
    Mutant(
        "a rebuild drops recorded jobs",
        "if others(rg, ARGV[d]) > 0 then ack(rg..'/'..ARGV[d]) end",
        "",
        "a_rebuild_drops_the_jobs_of_recorded_steps",
    ),
    Mutant(
        "a rebuild keeps an outbox",
        "if others(rg, ARGV[d]) > 0 then ack(rg..'/'..ARGV[d]) end",
        "ack(rg..'/'..ARGV[d])",
        "a_rebuild_keeps_the_last_job_as_the_outbox",
    ),
    Mutant(
        "only the owner gives back",
        "if b and (has == owner or taken) then",
        "if b then",
        "only_its_owner_gives_a_job_back",
    ),
    Mutant(
        "a delay is kept",
        "call('ZADD', DELAY, now + delay, id)",
        "call('ZADD', DELAY, now, id)",
        "a_job_that_was_put_off_comes_later_as_the_next_attempt",
    ),
    Mutant("lapsed leases are counted", "; call('HINCRBY', CNT, id, 1)", "", "a_lapsed_lease_is_counted_and_verified"),
    Mutant("leases lapse", "then requeue(LEASE) end", "then end", "a_lapsed_lease_is_counted_and_verified"),
    Mutant(
        "after a standstill living workers renew first",
        "if now >= m.calm then requeue",
        "if true then requeue",
        "a_server_that_stood_still_lets_its_workers_renew_first",
    ),
    Mutant("a leased job is not handed out", "not leased[k] and ", "", "a_lease_that_has_not_lapsed_is_nobody_elses"),
    Mutant(
        "a living worker takes its job back",
        "elseif call('HEXISTS', BODY, id) == 1 then\n",
        "elseif false then\n",
        "a_job_that_was_queued_again_goes_back_to_its_living_worker",
    ),
    Mutant(
        "another's lease is gone",
        "elseif ARGV[3] == m.ep then answer = 0 end",
        "end",
        "what_becomes_of_a_lease_that_is_renewed",
    ),
    Mutant(
        "a released job is not taken back",
        "call('HSET', OWN, id, '-'..ep..' '); call('ZREM'",
        "call('HDEL', OWN, id); call('ZREM'",
        "a_late_renewal_does_not_take_what_was_given_back",
    ),
    Mutant(
        "jobs that a draining worker releases stay released",
        "call('HSET', OWN, id, '-'..ep..' '); call('ZREM'",
        "call('HDEL', OWN, id); call('ZREM'",
        "many_jobs_that_are_given_back_while_they_are_renewed_stay_back",
    ),
    Mutant(
        "a job of another worker is not taken back",
        "or (owner and not marked) then return false end",
        "then return false end",
        "only_its_owner_gives_a_job_back",
    ),
    Mutant(
        "a job that another worker released is not taken back",
        "call('HSET', OWN, id, '-'..ep..' '); call('ZREM'",
        "call('HDEL', OWN, id); call('ZREM'",
        "a_late_renewal_does_not_take_what_another_gave_back",
    ),
    Mutant(
        "a lapsed lease is taken back by its own worker alone",
        "if by ~= token then return false end\n",
        "",
        "a_lease_that_lapsed_goes_back_to_its_own_worker_alone",
    ),
    Mutant(
        "a lapse of a worker that lives is not counted",
        "  call('HINCRBY', CNT, id, -1)\n",
        "",
        "a_lease_that_lapsed_goes_back_to_its_own_worker_alone",
    ),
    Mutant(
        "a mark of a lost timeline does not count",
        "if marked ~= ep then return true end",
        "if not marked then return true end",
        "what_was_given_back_before_a_restore_goes_back_to_its_living_worker",
    ),
    Mutant(
        "a renewal of before a loss takes nothing after it",
        "if token == '' or seen_ep ~= ep or",
        "if token == '' or",
        "a_renewal_of_before_a_loss_takes_nothing_after_it",
    ),
    Mutant(
        "a renewal without a token takes no job",
        "if token == '' or seen_ep",
        "if seen_ep",
        "a_renewal_without_a_token_takes_nothing",
    ),
    Mutant(
        "a job released after a rebuild is marked, too",
        "(has == owner or taken) then",
        "has == owner then",
        "what_was_given_back_after_a_loss_is_not_taken_by_a_late_renewal",
    ),
    Mutant(
        "newer facts of a rebuild count",
        "if taken then verify = '1'; attempt = math.max(tonumber(attempt), tonumber(known)) end",
        "",
        "what_was_given_back_after_a_loss_is_not_taken_by_a_late_renewal",
    ),
    Mutant(
        "a release before a rebuild is remembered",
        "if not b then call('SET', p..'left:'..id..' '..owner, 1, 'PX', RQ_TTL) end",
        "",
        "what_was_given_back_before_a_rebuild_is_not_taken_by_a_late_renewal",
    ),
    Mutant(
        "a job released before a rebuild is not taken",
        "  if call('EXISTS', p..'left:'..id..' '..token) == 1 then return false end\n",
        "",
        "what_was_given_back_before_a_rebuild_is_not_taken_by_a_late_renewal",
    ),
    Mutant(
        "a cancelled or closed run's lease is gone",
        "if v[1] == 'c' or (not v[1] and tombed(rg)) then answer = 0\n    elseif",
        "if",
        "what_becomes_of_a_lease_that_is_renewed",
    ),
    Mutant(
        "a worker without the required capabilities gets no job",
        "do good = good and have[need] end",
        "do good = true end",
        "a_job_waits_for_a_worker_with_its_capabilities",
    ),
    Mutant("lanes take turns", "mine[(tick + k) % #mine + 1]", "mine[k]", "lanes_take_turns"),
    Mutant(
        "children go first for all requirements",
        "if first[lane] then",
        "if false then",
        "what_follows_is_handed_out_first_whatever_its_lane",
    ),
    Mutant(
        "children go first",
        "add(first, rg, ARGV[c]",
        "add(pushed, rg, ARGV[c]",
        "what_has_begun_is_finished_first",
    ),
    Mutant(
        "a requeued job goes first",
        "push(first, id, lane)",
        "push(pushed, id, lane)",
        "what_has_begun_is_finished_first",
    ),
    Mutant("handed out once", " and not taken[id]", "", "a_job_that_stands_twice_is_handed_out_once"),
    Mutant(
        "an acknowledged job's lease does not expire",
        "remove_acked()\nif closed",
        "if closed",
        "a_job_whose_lease_lapsed_as_it_was_acknowledged_is_gone",
    ),
    Mutant(
        "a closed run's job is removed",
        "  remove_acked()\nend\nlocal nextms",
        "end\nlocal nextms",
        "a_job_of_a_closed_run_is_not_handed_out",
    ),
    Mutant("without a job it is lost", " and call('SCARD', p..'j:'..ARGV[i]) > 0", "", "a_run_without_a_job_is_lost"),
    Mutant(
        "a heartbeat looks for lapsed leases",
        "if lapsed and call('ZCARD', IDLE) > 0 then",
        "if false then",
        "a_heartbeat_wakes_sleepers_beside_an_expired_lease",
    ),
    Mutant(
        "work wakes",
        "if call('ZCARD', IDLE) > 0 then call('PUBLISH', p..'bell', 'jobs') end",
        "",
        "sleeping_workers_are_woken_and_the_end_is_published",
    ),
    Mutant(
        "a new epoch wakes",
        "'rid', rid); call('PUBLISH', p..'bell', 'jobs')",
        "'rid', rid)",
        "a_lost_window_wakes_the_sleeping_workers",
    ),
    Mutant(
        "a released job wakes sleepers",
        "if delay == 0 then call('PUBLISH', p..'bell', 'jobs') end",
        "",
        "sleeping_workers_are_woken_and_the_end_is_published",
    ),
    Mutant(
        "a cancellation is told",
        "call('PUBLISH', p..'bell', 'cancel '..rg)",
        "",
        "sleeping_workers_are_woken_and_the_end_is_published",
    ),
    Mutant(
        "an end is told",
        "call('PUBLISH', p..'bell', 'over '..rg)",
        "",
        "sleeping_workers_are_woken_and_the_end_is_published",
    ),
    Mutant("time goes on", "if seen - now > BACK_MS then", "if false then", "time_goes_on_where_the_clock_is_set_back"),
    Mutant(
        "time does not stand still",
        "now = seen; call('HSET', META, 'off', off)",
        "now = seen",
        "time_goes_on_where_the_clock_is_set_back",
    ),
    Mutant("time is ahead from then on", "now = now + off\n", "", "time_goes_on_where_the_clock_is_set_back"),
    Mutant(
        "renewals know the time",
        "local m = facts(); heard(m); call('HSET', META, 'seen', now)\n  \
         local exp, res = now + tonumber(ARGV[2]), {}\n",
        "local exp, res = now + tonumber(ARGV[2]), {}; local m = facts(); heard(m); call('HSET', META, 'seen', now)\n",
        "time_goes_on_where_the_clock_is_set_back",
    ),
    Mutant(
        "a refusal is counted",
        "call('HINCRBY', META, 'refused', 1); ",
        "",
        "everybody_hears_that_runs_were_refused",
    ),
    Mutant(
        "a call tells of refusals",
        "local ep, tick, refused = epoch(m, ARGV[4]",
        "local refused, ep, tick = 0, epoch(ARGV[4]",
        "everybody_hears_that_runs_were_refused",
    ),
    Mutant(
        "a heartbeat tells of refusals",
        "local ep, tick, refused = epoch(m, ARGV[5]",
        "local refused, ep, tick = 0, epoch(ARGV[5]",
        "everybody_hears_that_runs_were_refused",
    ),
    Mutant(
        "a look tells of refusals",
        "local ep, tick, refused = epoch(m, ARGV[2]",
        "local refused, ep, tick = 0, epoch(ARGV[2]",
        "everybody_hears_that_runs_were_refused",
    ),
    Mutant(
        "a worker that is not heard is not listed",
        "'('..now, '+inf'",
        "'-inf', '+inf'",
        "a_silent_worker_is_not_listed",
    ),
    Mutant(
        "the generation is part of every key",
        "local kind, rg = ARGV[i], ARGV[i + 1]; local h",
        "local kind, rg = ARGV[i], string.gsub(ARGV[i + 1], ':[0-9]+', ':0', 1); local h",
        "generations_are_apart",
    ),
];

fn scenario(name: &str) -> Option<Scenario> {
    let all = [epochs::ALL, jobs::ALL, runs::ALL];
    all.into_iter().flatten().find(|(known, _)| *known == name).map(|(_, scenario)| *scenario)
}

#[test]
fn each_rule_is_needed() {
    let mut wrong = Vec::new();
    for Mutant(rule, words, without, catcher) in MUTANTS {
        let Some(scenario) = scenario(catcher) else {
            wrong.push(format!("{rule}: there is no scenario {catcher}"));
            continue;
        };
        match SCRIPT.matches(words).count() {
            1 => match scenario(&Stage::new(&SCRIPT.replace(words, without))) {
                Ok(()) => wrong.push(format!("{rule}: {catcher} holds without it")),
                Err(why) => println!("{rule}: without it {catcher} fails: {why}"),
            },
            found => wrong.push(format!("{rule}: its words stand {found} times in the script: {words}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
