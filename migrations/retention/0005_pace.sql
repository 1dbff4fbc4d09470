-- What small transactions of others take at present: each writes a message to the WAL, that no reader takes for anything, and
-- commits. Timed here, so that only the server counts.
create procedure tidemark_retention.feel(transactions integer, pause double precision, inout slow double precision)
language plpgsql as $$
declare
  began timestamptz;
  took double precision[] := '{}';
begin
  for i in 1 .. transactions loop
    perform pg_catalog.pg_sleep(pause);
    began := pg_catalog.clock_timestamp();
    perform pg_catalog.pg_logical_emit_message(true, 'tidemark.pace', '');
    commit;
    took := took || 1000 * extract(epoch from pg_catalog.clock_timestamp() - began)::double precision;
  end loop;
  slow := (select pg_catalog.percentile_disc(0.9) within group (order by t) from pg_catalog.unnest(took) t);
end $$;
revoke all on procedure tidemark_retention.feel(integer, double precision, double precision) from public;
grant execute on procedure tidemark_retention.feel(integer, double precision, double precision) to tidemark_retention;
