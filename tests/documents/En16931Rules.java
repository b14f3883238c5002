import com.helger.diver.api.coord.DVRCoordinate;
import com.helger.io.resource.FileSystemResource;
import com.helger.phive.api.execute.ValidationExecutionManager;
import com.helger.phive.api.executorset.ValidationExecutorSetRegistry;
import com.helger.phive.api.validity.IValidityDeterminator;
import com.helger.phive.en16931.EN16931Validation;
import com.helger.phive.xml.source.IValidationSourceXML;
import com.helger.phive.xml.source.ValidationSourceXML;
import java.io.File;
import java.util.Locale;
import java.util.Map;

/** The schema of UBL or CII and the official rules of EN 16931 on XML files: a line a file, then a line a complaint. */
public class En16931Rules {
  static final Map<String, DVRCoordinate> RULES = Map.of(
      "Invoice", EN16931Validation.VID_UBL_INVOICE_1315,
      "CreditNote", EN16931Validation.VID_UBL_CREDIT_NOTE_1315,
      "CrossIndustryInvoice", EN16931Validation.VID_CII_1315);

  public static void main(String[] files) {
    ValidationExecutorSetRegistry<IValidationSourceXML> registry = new ValidationExecutorSetRegistry<>();
    EN16931Validation.initEN16931(registry);
    for (String file : files) {
      var source = ValidationSourceXML.create(new FileSystemResource(new File(file)));
      var node = source.getNode();
      var document = node instanceof org.w3c.dom.Document it ? it : node.getOwnerDocument();
      var rules = registry.getOfID(RULES.get(document.getDocumentElement().getLocalName()));
      var layers = ValidationExecutionManager.executeValidation(IValidityDeterminator.createDefault(), rules, source);
      System.out.println("checked\t" + file + "\t" + layers.size());
      layers.forEach(layer -> layer.getErrorList().forEach(error -> System.out.println(
          "complaint\t" + file + "\t" + error.getErrorID() + " " + error.getErrorText(Locale.US).replace('\n', ' '))));
    }
  }
}
