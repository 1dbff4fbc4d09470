package org.apache.iceberg.rest;

import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.hadoop.conf.Configuration;
import org.apache.iceberg.CatalogUtil;
import org.eclipse.jetty.compression.gzip.GzipCompression;
import org.eclipse.jetty.compression.server.CompressionHandler;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.http.UriCompliance;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;

/**
 * Iceberg's REST catalog server on one address. Its own main class listens on all of them; the parts are the same, and
 * they are visible in their package only, hence this one's.
 *
 * Arguments: address, port, and a file with the properties of the catalog behind the server.
 */
public final class LoopbackCatalogServer {
  public static void main(String[] arguments) throws Exception {
    Map<String, String> properties = read(Path.of(arguments[2]));
    var catalog = CatalogUtil.buildIcebergCatalog("local", properties, new Configuration());
    var context = new RESTCatalogServer.CatalogContext(catalog, properties);
    var servlet = new RESTCatalogServlet(new RESTServerCatalogAdapter(context));

    var handler = new ServletContextHandler(ServletContextHandler.NO_SESSIONS);
    handler.addServlet(new ServletHolder(servlet), "/*");
    // Names may hold anything: by default Jetty takes no path with an encoded slash, percent sign or unit separator.
    handler.getServletHandler().setDecodeAmbiguousURIs(true);
    var http = new HttpConfiguration();
    http.setUriCompliance(UriCompliance.UNSAFE);
    var compression = new CompressionHandler();
    compression.putCompression(new GzipCompression());
    handler.insertHandler(compression);
    var server = new Server();
    var connector = new ServerConnector(server, new HttpConnectionFactory(http));
    connector.setHost(arguments[0]);
    connector.setPort(Integer.parseInt(arguments[1]));
    server.addConnector(connector);
    server.setHandler(handler);
    server.setStopAtShutdown(true);
    server.start();
    server.join();
  }

  private static Map<String, String> read(Path file) throws Exception {
    var properties = new Properties();
    try (Reader reader = Files.newBufferedReader(file)) {
      properties.load(reader);
    }
    Map<String, String> map = new TreeMap<>();
    properties.forEach((key, value) -> map.put((String) key, (String) value));
    return map;
  }
}
