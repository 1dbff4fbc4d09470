import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.StringJoiner;
import org.apache.spark.sql.Row;
import org.apache.spark.sql.SparkSession;
import org.apache.spark.sql.types.ArrayType;
import org.apache.spark.sql.types.DataType;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.DecimalType;
import org.apache.spark.sql.types.StringType;
import org.apache.spark.sql.types.StructField;
import scala.collection.Seq;

/**
 * Reads Iceberg tables with Spark for whoever writes a line of JSON to standard input, and answers with one on standard
 * output: {"properties": {...}, "namespace": [...], "table": "...", "snapshot": "..."} gives {"columns": [...], "kinds":
 * [...], "rows": [[...]]} or {"error": "..."}. Cells are text in the raw forms of raw-cell.ts. {"properties": {...},
 * "statements": [...]} runs SQL in which {catalog} stands for the catalog, and gives the rows of the last one as text.
 */
public final class SparkReader {
  private static final ObjectMapper mapper =
      new ObjectMapper().disable(JsonGenerator.Feature.AUTO_CLOSE_TARGET);

  public static void main(String[] arguments) throws Exception {
    PrintStream answers = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    System.setOut(System.err);
    SparkSession spark =
        SparkSession.builder()
            .master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.datetime.java8API.enabled", "true")
            .config(
                "spark.sql.extensions",
                "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions")
            .getOrCreate();
    spark.sparkContext().setLogLevel("ERROR");
    answers.println("{\"ready\": true}");
    BufferedReader requests =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = requests.readLine(); line != null; line = requests.readLine()) {
      ObjectNode answer;
      try {
        JsonNode request = mapper.readTree(line);
        answer = request.has("statements") ? run(spark, request) : read(spark, request);
      } catch (Throwable failure) {
        answer = mapper.createObjectNode().put("error", failure.toString());
      }
      // As text it would be in memory once more.
      mapper.writeValue(answers, answer);
      answers.println();
    }
    spark.stop();
  }

  private static ObjectNode read(SparkSession spark, JsonNode request) {
    String name = catalogOf(spark, request.get("properties"));
    StringJoiner table = new StringJoiner(".").add(name);
    request.get("namespace").forEach(level -> table.add(quoted(level.asText())));
    table.add(quoted(request.get("table").asText()));
    var reader = spark.read();
    if (request.hasNonNull("snapshot")) reader.option("snapshot-id", request.get("snapshot").asText());
    var frame = reader.format("iceberg").table(table.toString());

    ObjectNode answer = mapper.createObjectNode();
    ArrayNode columns = answer.putArray("columns");
    ArrayNode kinds = answer.putArray("kinds");
    StructField[] fields = frame.schema().fields();
    for (StructField field : fields) {
      columns.add(field.name());
      kinds.add(kind(field.dataType()));
    }
    ArrayNode rows = answer.putArray("rows");
    for (Iterator<Row> each = frame.toLocalIterator(); each.hasNext(); ) {
      Row row = each.next();
      ArrayNode cells = rows.addArray();
      for (int i = 0; i < fields.length; i++) cells.add(raw(row.get(i), fields[i].dataType()));
    }
    return answer;
  }

  private static ObjectNode run(SparkSession spark, JsonNode request) {
    String name = catalogOf(spark, request.get("properties"));
    ObjectNode answer = mapper.createObjectNode();
    for (JsonNode statement : request.get("statements")) {
      ArrayNode rows = answer.putArray("rows");
      for (Row row : spark.sql(statement.asText().replace("{catalog}", name)).collectAsList())
        rows.add(row.mkString(" "));
    }
    return answer;
  }

  /** Catalogs are made once for the same properties, under a name that follows from them. */
  private static String catalogOf(SparkSession spark, JsonNode properties) {
    String name = "c" + Integer.toHexString(properties.toString().hashCode());
    String prefix = "spark.sql.catalog." + name;
    if (spark.conf().getOption(prefix).isEmpty()) {
      properties.fields().forEachRemaining(each -> spark.conf().set(prefix + "." + each.getKey(), each.getValue().asText()));
      spark.conf().set(prefix + ".type", "rest");
      // What is read is what the catalog has now.
      spark.conf().set(prefix + ".cache-enabled", "false");
      spark.conf().set(prefix + ".http-client.type", "urlconnection");
      spark.conf().set(prefix, "org.apache.iceberg.spark.SparkCatalog");
    }
    return name;
  }

  private static String quoted(String name) {
    return "`" + name.replace("`", "``") + "`";
  }

  private static String kind(DataType type) {
    if (type instanceof StringType) return "text";
    if (type instanceof DecimalType) return "decimal";
    if (type instanceof ArrayType list) return "list:" + kind(list.elementType());
    if (type.equals(DataTypes.BooleanType)) return "boolean";
    if (type.equals(DataTypes.IntegerType) || type.equals(DataTypes.LongType)) return "integer";
    if (type.equals(DataTypes.FloatType)) return "float";
    if (type.equals(DataTypes.DoubleType)) return "double";
    if (type.equals(DataTypes.DateType)) return "date";
    if (type.equals(DataTypes.TimestampType)) return "timestamptz";
    if (type.equals(DataTypes.TimestampNTZType)) return "timestamp";
    if (type.equals(DataTypes.BinaryType)) return "binary";
    throw new IllegalArgumentException("no raw form for " + type.simpleString());
  }

  private static JsonNode raw(Object value, DataType type) {
    if (value == null) return mapper.nullNode();
    if (type instanceof ArrayType list) {
      ArrayNode elements = mapper.createArrayNode();
      Seq<?> values = (Seq<?>) value;
      for (int i = 0; i < values.size(); i++) elements.add(raw(values.apply(i), list.elementType()));
      return elements;
    }
    return mapper.getNodeFactory().textNode(text(value));
  }

  private static String text(Object value) {
    if (value instanceof Float number) return Integer.toUnsignedString(Float.floatToRawIntBits(number));
    if (value instanceof Double number) return Long.toUnsignedString(Double.doubleToRawLongBits(number));
    if (value instanceof BigDecimal number) return number.toPlainString();
    if (value instanceof LocalDate day) return Long.toString(day.toEpochDay());
    if (value instanceof Instant moment) return micros(moment.getEpochSecond(), moment.getNano());
    if (value instanceof LocalDateTime moment) return micros(moment.toEpochSecond(ZoneOffset.UTC), moment.getNano());
    if (value instanceof byte[] bytes) return HexFormat.of().formatHex(bytes);
    return value.toString();
  }

  private static String micros(long seconds, int nanos) {
    return Long.toString(Math.addExact(Math.multiplyExact(seconds, 1_000_000L), nanos / 1000));
  }
}
