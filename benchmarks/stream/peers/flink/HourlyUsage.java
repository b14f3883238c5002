import java.io.BufferedWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.api.common.JobStatus;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.types.Row;

/**
 * Flink SQL: hourly sums by subject and region, with copies of an event dropped by their id or not. No checkpoints, and no
 * sink but a buffered file.
 *
 * <p>HourlyUsage BROKER TOPIC EVENTS PARALLELISM deduplicate|all RESULT
 *
 * <p>The watermark is as late as the latest event may be, so no event is dropped as late, and the windows close where the
 * bounded topic ends. Timed is from the moment when the job is running to its end.
 */
public final class HourlyUsage {
    private static final AtomicLong EVENTS = new AtomicLong();
    private static BufferedWriter result;

    private static final String EVENTS_TABLE = """
            CREATE TABLE events (
              `source` STRING, `id` STRING, `subject` STRING, `time` STRING, `data` ROW<`bytes` BIGINT, `region` STRING>,
              `proc` AS PROCTIME(),
              `at` AS TO_TIMESTAMP(REPLACE(REPLACE(`time`, 'T', ' '), 'Z', '')),
              WATERMARK FOR `at` AS `at` - INTERVAL '21' DAY(2)
            ) WITH (
              'connector' = 'kafka', 'properties.bootstrap.servers' = '%s', 'topic' = '%s',
              'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset', 'format' = 'json'
            )""";

    private static final String DISTINCT = """
            SELECT `subject`, `data`, `at` FROM (
              SELECT *, ROW_NUMBER() OVER (PARTITION BY `source`, `id` ORDER BY `proc`) AS `copy` FROM events
            ) WHERE `copy` = 1""";

    private static final String HOURLY = """
            SELECT `subject`, `region`, DATE_FORMAT(window_start, 'yyyy-MM-dd HH') AS `hour`, COUNT(*), SUM(`bytes`)
            FROM TABLE(TUMBLE(TABLE usages, DESCRIPTOR(`at`), INTERVAL '1' HOUR))
            GROUP BY `subject`, `region`, window_start, window_end""";

    public static void main(String[] arguments) throws Exception {
        StreamExecutionEnvironment environment =
                StreamExecutionEnvironment.getExecutionEnvironment(new Configuration());
        environment.setParallelism(Integer.parseInt(arguments[3]));
        environment.getConfig().enableObjectReuse();
        StreamTableEnvironment tables = StreamTableEnvironment.create(environment);
        tables.executeSql(EVENTS_TABLE.formatted(arguments[0], arguments[1]));
        String events = arguments[4].equals("deduplicate") ? DISTINCT : "SELECT `subject`, `data`, `at` FROM events";
        tables.executeSql("CREATE TEMPORARY VIEW usages AS SELECT `subject`, `data`.`bytes` AS `bytes`,"
                + " `data`.`region` AS `region`, `at` FROM (" + events + ")");
        Table hourly = tables.sqlQuery(HOURLY);
        System.err.println(hourly.explain());

        result = Files.newBufferedWriter(Path.of(arguments[5]));
        result.write("subject,region,hour,count,sum\n");
        tables.toDataStream(hourly).map(new Write()).returns(Types.LONG).sinkTo(new DiscardingSink<>());
        JobClient job = environment.executeAsync("hourly usage");
        while (job.getJobStatus().get() != JobStatus.RUNNING) {
            Thread.sleep(5);
        }
        long startedAtMs = System.currentTimeMillis();
        job.getJobExecutionResult().get();
        long endedAtMs = System.currentTimeMillis();
        result.close();
        System.out.printf("{\"events\": %s, \"started_at\": %.3f, \"ended_at\": %.3f}%n",
                arguments[2], startedAtMs / 1000.0, endedAtMs / 1000.0);
    }

    /** Writes the windows down as they close. */
    public static final class Write implements MapFunction<Row, Long> {
        @Override
        public Long map(Row row) throws Exception {
            String hour = ((String) row.getField(2)).replace(' ', 'T');
            synchronized (EVENTS) {
                result.write(row.getField(0) + "," + row.getField(1) + "," + hour + "," + row.getField(3) + ","
                        + row.getField(4) + "\n");
            }
            return EVENTS.addAndGet((Long) row.getField(3));
        }
    }
}
