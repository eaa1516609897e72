import com.pixelmed.validate.DicomSRValidator;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import javax.xml.transform.Source;
import javax.xml.transform.Transformer;
import javax.xml.transform.URIResolver;

/**
 * PixelMed's DicomSRValidator, started once for many files: a path per line comes in; what its own main prints
 * of that file goes out, then a line with END.
 *
 * The validator's style sheet asks for its table of context groups (660 kB of XML) once per content item, and reads
 * it anew each time, because the answer has no name under which it could be found again. With the name it is read
 * once per file: the same words, for a twentieth of the work.
 */
class Validator {
  static final String END = "-- end of file --";

  public static void main(String[] none) throws Exception {
    DicomSRValidator validator = new DicomSRValidator();
    name(validator, "transformerPass1");
    name(validator, "transformerPass2");
    BufferedReader paths = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String path = paths.readLine(); path != null; path = paths.readLine()) {
      try {
        System.out.print(validator.validate(path));
      } catch (Exception problem) {
        problem.printStackTrace(System.out);
      }
      System.out.println(END);
      System.out.flush();
    }
  }

  /** Have what one of the two transformations reads bear its name. */
  private static void name(DicomSRValidator validator, String transformation) throws Exception {
    var field = DicomSRValidator.class.getDeclaredField(transformation);
    field.setAccessible(true);
    Transformer transformer = (Transformer) field.get(validator);
    URIResolver theirs = transformer.getURIResolver();
    transformer.setURIResolver((name, base) -> {
      Source found = theirs.resolve(name, base);
      found.setSystemId(name);
      return found;
    });
  }
}
