import org.mustangproject.validator.ZUGFeRDValidator;

/** Factur-X files as Mustang sees them: PDF/A by veraPDF, the XML inside by its schema and rules. A report a file. */
public class FacturX {
  public static void main(String[] files) {
    for (String file : files) {
      ZUGFeRDValidator validator = new ZUGFeRDValidator();
      String report = validator.validate(file);
      System.out.println("checked\t" + file + "\t" + validator.wasCompletelyValid());
      System.out.println(report);
    }
  }
}
